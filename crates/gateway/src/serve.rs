//! The server: accepts connections, answers requests, and has its own pages.

pub(crate) mod accept;
pub(crate) mod app;
pub(crate) mod asked;
pub(crate) mod call;
pub(crate) mod connection;
pub(crate) mod health;
pub(crate) mod merged;
pub(crate) mod metrics;
pub(crate) mod name;
pub(crate) mod own;
pub(crate) mod protocol;
pub(crate) mod request;
pub(crate) mod served;
pub(crate) mod thread;
