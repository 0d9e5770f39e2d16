"""The forms: a task to enqueue, and a schedule with its next firings.

Form fields of stored columns are named otherwise than the columns (``arguments`` for args): a ModelForm reads the
attributes of its fields, and reading a signed row's args imports and loads what they name.
"""
