"""Export and import of webhooks as JSON without secrets; an import has a preview.

`document` writes and reads the file, `forms` validates each entry with the form that people use,
`plans` works out what an import creates, changes and leaves, and carries it out.
"""
