//! Real servers for repositories on other machines: SeaweedFS for S3, OpenSSH for SFTP.
//!
//! Each runs on free ports of the loopback with throw-away credentials in a folder of its own, and under a
//! shell that waits for its standard input to end: so it is gone when the test process is, however that ends.

mod link;
mod process;
mod proxy;
mod s3;
mod ssh;

pub use link::{FaultyLink, LinkFault};
pub use proxy::{Fault, FaultyProxy};
pub use s3::S3Server;
pub use ssh::SshServer;
