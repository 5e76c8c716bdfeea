"""The commands of `embedstore`: those that write a store, those that read one."""
