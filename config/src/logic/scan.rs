//! Reads a text from left to right and knows the column of what is wrong.

use super::Logic;

/// How deep parentheses and `!` may be nested.
const DEEPEST: u32 = 16;

/// Where a text stops being what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// The place, counted in characters from 1.
    pub(crate) column: usize,
    /// What should be there.
    pub(crate) expected: &'static str,
}

/// A text, and how far it is read.
pub(crate) struct Scanner<'a> {
    text: &'a str,
    /// Bytes that are read.
    at: usize,
    depth: u32,
}

impl<'a> Scanner<'a> {
    /// Nothing of `text` is read yet.
    pub(crate) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// How many bytes are read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// What is left, without blanks in front.
    pub(crate) fn rest(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let trimmed = rest.trim_start();
        self.at += rest.len() - trimmed.len();
        trimmed
    }

    /// Goes on by so many bytes.
    pub(crate) fn skip(&mut self, bytes: usize) {
        self.at += bytes;
    }

    /// The column of the byte `at`, in characters from 1.
    pub(crate) fn column(&self, at: usize) -> usize {
        self.text[..at].chars().count() + 1
    }

    /// The mistake that what is left does not begin with `expected`.
    pub(crate) fn expected(&mut self, expected: &'static str) -> Mistake {
        self.rest();
        Mistake { column: self.column(self.at), expected }
    }

    /// Whether what is left begins with `token`, which is read if so.
    pub(crate) fn take(&mut self, token: &str) -> bool {
        let there = self.rest().starts_with(token);
        if there {
            self.at += token.len();
        }
        there
    }

    /// Reads `token`, which has to be there.
    pub(crate) fn expect(&mut self, token: &'static str) -> Result<(), Mistake> {
        if self.take(token) { Ok(()) } else { Err(self.expected(token)) }
    }

    /// Reads conditions and what joins them; `condition` reads one.
    pub(crate) fn logic<T, E: From<Mistake>>(
        &mut self,
        condition: &mut dyn FnMut(&mut Self) -> Result<Logic<T>, E>,
    ) -> Result<Logic<T>, E> {
        let mut any = vec![self.all(condition)?];
        while self.take("||") {
            any.push(self.all(condition)?);
        }
        Ok(Logic::one_or(any, Logic::Any))
    }

    fn all<T, E: From<Mistake>>(
        &mut self,
        condition: &mut dyn FnMut(&mut Self) -> Result<Logic<T>, E>,
    ) -> Result<Logic<T>, E> {
        let mut all = vec![self.one(condition)?];
        while self.take("&&") {
            all.push(self.one(condition)?);
        }
        Ok(Logic::one_or(all, Logic::All))
    }

    fn one<T, E: From<Mistake>>(
        &mut self,
        condition: &mut dyn FnMut(&mut Self) -> Result<Logic<T>, E>,
    ) -> Result<Logic<T>, E> {
        let opens = matches!(self.rest().as_bytes(), [b'(', ..] | [b'!', ..]);
        if !opens {
            return condition(self);
        }
        if self.depth == DEEPEST {
            return Err(self.expected("fewer than 17 nested parentheses and !").into());
        }
        self.depth += 1;
        let read = if self.take("!") {
            Logic::Not(Box::new(self.one(condition)?))
        } else {
            self.expect("(")?;
            let inner = self.logic(condition)?;
            if !self.take(")") {
                return Err(self.expected("&&, || or )").into());
            }
            inner
        };
        self.depth -= 1;
        Ok(read)
    }
}
