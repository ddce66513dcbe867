//! Local history: runs, proofs and drills.
