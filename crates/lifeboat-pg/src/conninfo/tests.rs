//! Tests of the connection string rules.
