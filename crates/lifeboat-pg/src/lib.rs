//! lifeboat-pg
