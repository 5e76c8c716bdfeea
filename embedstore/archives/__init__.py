"""The verb `fetch`: public datasets by name, from the archives that hold them."""
