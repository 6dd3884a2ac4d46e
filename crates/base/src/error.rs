//! The text of an error with its causes.

use std::error::Error;

/// An error and its causes in one line, each once: many errors include the text of their cause.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        next = cause.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_causes_says_each_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Layer(&'static str, #[source] Option<Box<Layer>>);
        let error =
            Layer("it failed: disk full", Some(Box::new(Layer("disk full", Some(Box::new(Layer("quota", None)))))));
        assert_eq!(chain(&error), "it failed: disk full: quota");
    }
}
