//! Tells the wrong parameters of a page from the right ones.

use crate::web::problem::{Kind, Problem};
use crate::web::query::Parameters;
use crate::web::views::WrongParameters;

/// Makes something of the parameters that are right, and returns it with those that are wrong; `None` if the problem is
/// not in one of them.
pub fn separate<T>(
    parameters: &Parameters,
    make: impl Fn(&Parameters) -> Result<T, Problem>,
) -> Option<(T, WrongParameters)> {
    let (mut kept, mut wrong) = (parameters.clone(), WrongParameters::default());
    loop {
        let problem = match make(&kept) {
            Ok(made) => return Some((made, wrong)),
            Err(problem) => problem,
        };
        // The detail begins with the name.
        let (name, detail) = problem.detail().split_once(' ')?;
        let values = || kept.all(name).filter(|_| problem.kind == Kind::BadParameter);
        // Without any other value but the wrong one, the problem is the same. If there is no such value, there are too
        // many, and the last one goes.
        let others_removed = |value: &&str| {
            let alone =
                values().filter(|other| other != value).fold(kept.clone(), |kept, other| kept.without(name, other));
            make(&alone).is_err_and(|alone| alone.detail() == problem.detail())
        };
        let typed = values().find(others_removed).or_else(|| values().last())?.to_owned();
        wrong.add(name, &typed, detail);
        kept = kept.without(name, &typed);
    }
}
