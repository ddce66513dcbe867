//! Consent to destroying something, by its name.

use crate::app::App;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::prompt;

/// Asks for the name of what will be destroyed: `yes` when the flag was given, else typed on a terminal.
/// Without either it is a refusal. `what` says what will happen, as a sentence without its full stop.
pub fn by_name(app: &App, what: &str, name: &str, yes: Option<&str>) -> Result<(), Failure> {
    let given = match yes {
        Some(given) => given.to_owned(),
        None if prompt::is_possible() && !app.out.is_json() => {
            app.out.warn(&format!("{what}."));
            prompt::ask(app, &format!("Type {name} to go on"), None)?
        }
        None => {
            return Err(
                Failure::new(Exit::Refused, format!("{what}; nobody confirmed that"))
                    .hint(format!("add `--yes {name}` if that is what you want")),
            );
        }
    };
    if given == name {
        Ok(())
    } else {
        Err(Failure::new(
            Exit::Refused,
            format!("{given:?} is not the name: nothing was changed"),
        )
        .hint(format!("the name to confirm is {name}")))
    }
}
