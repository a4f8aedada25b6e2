"""Pure values and pure decisions: no I/O, no SQL, no asyncio."""
