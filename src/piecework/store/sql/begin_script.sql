-- Begin the transaction of a printed script.
BEGIN
