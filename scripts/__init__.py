"""The verbs of the command line: python -m scripts.<verb> --config_path configs/<row>.yaml."""
