//! The `lakelog` command.

fn main() -> std::process::ExitCode {
    lakelog::cli::main()
}
