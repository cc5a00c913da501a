"""The printing press: notebooks are executed, stamped and bound into the site.

Nothing of the book's subject is here, and no chapter imports it.
"""
