"""The sections of `config.yaml`, each as frozen values that check themselves."""
