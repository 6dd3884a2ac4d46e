//! The binary `modelway`. Everything is in the library beside it.

fn main() -> std::process::ExitCode {
    modelway_cli::main()
}
