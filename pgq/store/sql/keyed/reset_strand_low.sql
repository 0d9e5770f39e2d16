-- Sets the watermark of strands back to nothing: the sequence of strands has begun anew, as it does on a logical replica.
SELECT setval('pgq_strand_low', 0)
