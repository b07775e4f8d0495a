"""The version of this package; the build takes it from here."""

VERSION = "0.1.0"
