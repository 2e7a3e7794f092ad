# The program: its subcommands, of public names of the library and its add-ons only.
