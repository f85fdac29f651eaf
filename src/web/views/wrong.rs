//! Parameters that are wrong, as the form of a page shows them.

use super::format::sentence;

/// A parameter that is wrong.
#[derive(Clone)]
pub struct WrongParameter {
    pub name: String,
    /// Its value, as it was sent.
    pub typed: String,
    /// What was expected, as a sentence.
    pub words: String,
}

/// The wrong parameters of a page, one of each name.
#[derive(Clone, Default)]
pub struct WrongParameters(Vec<WrongParameter>);

impl WrongParameters {
    /// Adds a parameter, unless there is one of its name. `detail` follows the name: `must be a number`.
    pub fn add(&mut self, name: &str, typed: &str, detail: &str) {
        if self.of(name).is_none() {
            let words = sentence(&format!("{} {detail}", label(name)));
            self.0.push(WrongParameter { name: name.to_owned(), typed: typed.to_owned(), words });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &WrongParameter> {
        self.0.iter()
    }

    /// Returns the wrong parameter of a name.
    pub fn of(&self, name: &str) -> Option<&WrongParameter> {
        self.0.iter().find(|wrong| wrong.name == name)
    }

    /// Returns the attributes of the input of a parameter: where its error is. Nothing if it is right.
    pub fn attributes(&self, name: &str) -> String {
        self.of(name).map(|_| format!(r#" aria-invalid="true" aria-describedby="wrong-{name}""#)).unwrap_or_default()
    }
}

/// What pages call a parameter.
fn label(name: &str) -> &str {
    match name {
        "user_prefix" => "User",
        "action_prefix" => "Action",
        "q" => "Contains",
        "f" => "The condition on a field",
        "col" => "A column",
        "offset" => "From offset",
        "limit" => "Rows",
        name => name,
    }
}
