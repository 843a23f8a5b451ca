"""The published JSON Schemas: of reports, policies, ignore files and lists of models."""
