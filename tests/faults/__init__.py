"""The fault suite: what pgq promises, while processes, PostgreSQL, the network and operators do their worst.

=============  =====================================================================================
site.py        a database of its own with its pools, its tasks, its trace: where a fault is staged
tasks.py       tasks that write into the trace what no kill can take back
trace.py       the oracle: reads the trace and the tables, and says which invariants (I1-I12) were broken
failpoints.py  kill, freeze or fail a process at a named step; put into pgq from outside, only here
mutants.py     pgq with one guard removed: each must be caught by the suite
table.py       one line for each fault (F1-F40) and threat (S1-S20): `make faults` prints it
=============  =====================================================================================
"""
