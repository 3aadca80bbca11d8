"""The seven notebooks without a browser: run them in order, report on them, record a teacher."""
