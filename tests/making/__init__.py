"""What tests are made of: slides, stores, commands. The one place that tests share."""
