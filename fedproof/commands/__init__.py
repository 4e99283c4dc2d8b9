"""The commands of the operator. Modules here import what they need when they run, so that help is quick."""
