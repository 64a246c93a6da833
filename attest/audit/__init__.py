"""What an auditor finds in a log: whether it is whole, and how the operation changed.

An auditor reads every record in order, and checks that

    each record is what its leaf holds, and signed by a key certified for its boot
    the records of each boot count up from 0 without a gap, each naming the one before
    the leaves, on top of those seen before, give the root that the log signed

and notes what is no fault and yet matters: a new boot, another manifest, another
serving state, the first answer under a system prompt of another kind, a refused start.
It opens no file and no socket: a `Source` gives the bytes.
"""
