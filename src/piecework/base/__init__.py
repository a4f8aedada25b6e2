"""The ground floor: errors, ids, serialization. It imports nothing of piecework."""
