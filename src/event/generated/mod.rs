//! The protobuf messages of `proto/`, generated. Nothing outside of `event` sees them.
//!
//! The code is committed; a test regenerates it and compares (`proto/README.md` says how to renew it).

include!("lakelog.v1.rs");
