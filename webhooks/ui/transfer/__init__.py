"""Webhooks as JSON, without secrets: exported to a file, imported after a look at what it does.

`document` writes and reads the file, `forms` judges each entry by the form that people use, `plans`
says what an import would create, change and leave, and does it.
"""
