//! Counters and records of requests.

pub(crate) mod counters;
pub(crate) mod exposition;
pub(crate) mod pages;
pub(crate) mod records;
pub(crate) mod reports;
mod sample;
mod survey;
pub(crate) mod usage;
