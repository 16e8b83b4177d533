//! Conditions joined by `&&`, `||`, `!` and parentheses: the common part of rules of routes and of expressions of circuit
//! breakers.
//!
//! ```text
//! any = all { "||" all }
//! all = one { "&&" one }
//! one = "!" one | "(" any ")" | condition
//! ```

mod scan;

use std::fmt;

use serde::{Serialize, Serializer};

pub(crate) use self::scan::{Mistake, Scanner};

/// A condition, or several that are joined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Logic<T> {
    /// One of them holds; two or more.
    Any(Vec<Self>),
    /// All of them hold; two or more.
    All(Vec<Self>),
    /// It does not hold.
    Not(Box<Self>),
    /// This is so.
    Is(T),
}

impl<T> Logic<T> {
    /// Whether it holds; `is` says it of one condition.
    pub fn holds(&self, is: &impl Fn(&T) -> bool) -> bool {
        match self {
            Self::Any(parts) => parts.iter().any(|part| part.holds(is)),
            Self::All(parts) => parts.iter().all(|part| part.holds(is)),
            Self::Not(part) => !part.holds(is),
            Self::Is(condition) => is(condition),
        }
    }

    /// Every condition in it, in the order in which they are written.
    pub fn conditions(&self) -> Vec<&T> {
        match self {
            Self::Any(parts) | Self::All(parts) => parts.iter().flat_map(Self::conditions).collect(),
            Self::Not(part) => part.conditions(),
            Self::Is(condition) => vec![condition],
        }
    }

    /// The only one of `parts`, or all of them joined.
    pub(crate) fn one_or(mut parts: Vec<Self>, join: fn(Vec<Self>) -> Self) -> Self {
        match parts.pop() {
            Some(only) if parts.is_empty() => only,
            Some(last) => {
                parts.push(last);
                join(parts)
            }
            None => join(parts),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Logic<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(parts) => joined(f, parts, " || "),
            Self::All(parts) => joined(f, parts, " && "),
            Self::Not(part) => write!(f, "!{}", Part(part)),
            Self::Is(condition) => condition.fmt(f),
        }
    }
}

fn joined<T: fmt::Display>(f: &mut fmt::Formatter<'_>, parts: &[Logic<T>], between: &str) -> fmt::Result {
    for (i, part) in parts.iter().enumerate() {
        write!(f, "{}{}", if i == 0 { "" } else { between }, Part(part))?;
    }
    Ok(())
}

/// A part of a whole, in parentheses where it has parts itself.
struct Part<'a, T>(&'a Logic<T>);

impl<T: fmt::Display> fmt::Display for Part<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Logic::Any(_) | Logic::All(_) => write!(f, "({})", self.0),
            Logic::Not(_) | Logic::Is(_) => self.0.fmt(f),
        }
    }
}

impl<T: fmt::Display> Serialize for Logic<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Any such condition of these.
#[cfg(test)]
pub(crate) fn arbitrary<T: Clone + fmt::Debug + 'static>(
    condition: impl proptest::strategy::Strategy<Value = T> + 'static,
) -> impl proptest::strategy::Strategy<Value = Logic<T>> {
    use proptest::{collection::vec, prelude::*};
    condition.prop_map(Logic::Is).prop_recursive(3, 12, 3, |part| {
        prop_oneof![
            vec(part.clone(), 2..4).prop_map(Logic::Any),
            vec(part.clone(), 2..4).prop_map(Logic::All),
            part.prop_map(|part| Logic::Not(Box::new(part))),
        ]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_as_its_parts_do() {
        let read = |text: &str| Scanner::new(text).logic(&mut letter).expect("a condition");
        for (text, want) in [
            ("a || b", true),
            ("b || c", false),
            ("a && !b", true),
            ("a && b", false),
            ("!(b || c)", true),
            ("!(a || b)", false),
            ("a || b && c", true),
            ("(a || b) && c", false),
        ] {
            assert_eq!(read(text).holds(&|letter| *letter == 'a'), want, "{text}");
        }
        assert_eq!(read("c || !(a && b)").conditions(), [&'c', &'a', &'b']);
    }

    /// A condition of one letter.
    fn letter(scanner: &mut Scanner<'_>) -> Result<Logic<char>, Mistake> {
        let letter = ['a', 'b', 'c'].into_iter().find(|letter| scanner.take(&letter.to_string()));
        letter.map(Logic::Is).ok_or_else(|| scanner.expected("a, b or c"))
    }
}
