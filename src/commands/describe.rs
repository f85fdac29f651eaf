//! `footfall completions` and `footfall man`: the command line, for shells and for `man`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

/// Prints a script that completes commands and options in a shell.
pub fn completions(mut command: Command, shell: Shell) -> ExitCode {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    print(&script)
}

/// Prints the manual page, in roff: one page for all commands.
pub fn man(command: Command) -> ExitCode {
    // A page in memory cannot fail.
    print(&page(command).unwrap_or_default())
}

fn page(mut command: Command) -> io::Result<Vec<u8>> {
    command.build(); // so that the commands know their full names
    let mut page = Vec::new();
    let man = Man::new(command.clone());
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    page.extend_from_slice(b".SH COMMANDS\n");
    for command in command.get_subcommands().filter(|command| command.get_name() != "help") {
        writeln!(page, ".SS {}", command.get_bin_name().unwrap_or(command.get_name()))?;
        let man = Man::new(command.clone());
        let mut sections = Vec::new();
        man.render_description_section(&mut sections)?;
        man.render_options_section(&mut sections)?;
        // The command's heading is above those of its sections.
        let is_heading = |line: &&[u8]| line.starts_with(b".SH ");
        for line in sections.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_heading(line)) {
            page.extend_from_slice(line);
        }
    }
    man.render_extra_section(&mut page)?;
    man.render_version_section(&mut page)?;
    Ok(page)
}

fn print(bytes: &[u8]) -> ExitCode {
    // A reader that ends early, such as `head`, is no failure.
    match io::stdout().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("footfall: cannot print: {error}");
            ExitCode::from(1)
        }
        _ => ExitCode::SUCCESS,
    }
}
