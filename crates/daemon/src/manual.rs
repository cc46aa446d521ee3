//! Man pages and completions of a program, made of the definition of its command line: what a
//! package installs beside it.

use std::fs;
use std::io;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

/// Writes what belongs to a program into a directory: `man/*.1`, a page for the program and for each
/// of its commands; `bash/NAME`, `zsh/_NAME`, `fish/NAME.fish`, by the names under which the shells
/// look for them.
///
/// # Errors
/// If a file cannot be written.
pub fn write(mut command: Command, directory: &Path) -> io::Result<()> {
    let name = command.get_name().to_owned();
    let pages = directory.join("man");
    fs::create_dir_all(&pages)?;
    clap_mangen::generate_to(command.clone(), &pages)?;
    for (shell, file) in [
        (Shell::Bash, name.clone()),
        (Shell::Zsh, format!("_{name}")),
        (Shell::Fish, format!("{name}.fish")),
    ] {
        let place = directory.join(shell.to_string());
        fs::create_dir_all(&place)?;
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command, &name, &mut text);
        fs::write(place.join(file), text)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_command_has_a_page_and_hidden_ones_have_none() {
        let directory = tempfile::tempdir().unwrap();
        let command = Command::new("mixline-test")
            .version("1.2.3")
            .about("Tests")
            .subcommand(Command::new("status").about("Shows"))
            .subcommand(Command::new("secret").hide(true));
        write(command, directory.path()).unwrap();
        let mut pages: Vec<_> = fs::read_dir(directory.path().join("man"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        pages.sort();
        assert_eq!(pages, ["mixline-test-status.1", "mixline-test.1"]);
        for file in [
            "bash/mixline-test",
            "zsh/_mixline-test",
            "fish/mixline-test.fish",
        ] {
            let text = fs::read_to_string(directory.path().join(file)).unwrap();
            assert!(text.contains("status"), "{file}");
        }
    }
}
