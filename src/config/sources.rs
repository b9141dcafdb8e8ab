//! One option, four sources: the command line, the environment, the `.env`
//! file, the default. The first that has the option counts.

use std::{
    collections::HashMap,
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{ArgMatches, parser::ValueSource};

use super::{
    Refusal,
    dotenv::{self, EnvFile},
    options::{bounds, env_name, env_names},
    value::Bounds,
};

pub(super) type Environment = HashMap<String, OsString>;

/// The values of one subcommand, looked up by an option's id.
pub(super) struct Sources<'a> {
    flags: &'a ArgMatches,
    env: &'a Environment,
    file: EnvFile,
    file_name: String,
}

/// A value before it is read. It has no `Debug`: it may be a secret.
pub(super) struct Given {
    pub(super) text: String,
    /// `--shards`, or `SHARDS` with its source: what a refusal names.
    pub(super) name: String,
    /// The environment or a file; `None`: the command line, or the default.
    pub(super) place: Option<String>,
}

impl Given {
    pub(super) fn refuse(&self, why: impl std::fmt::Display) -> Refusal {
        match &self.place {
            Some(place) => Refusal::new(format!("{}: {why} (from {place})", self.name)),
            None => Refusal::new(format!("{}: {why}", self.name)),
        }
    }
}

impl<'a> Sources<'a> {
    /// `flags` are those of the subcommand. Only a server reads the file of the
    /// working folder (`of_server`): a client is started anywhere, and a folder
    /// that somebody else filled must not say where its token goes.
    pub(super) fn new(
        flags: &'a ArgMatches,
        env: &'a Environment,
        of_server: bool,
    ) -> Result<Self, Refusal> {
        let mut sources = Self {
            flags,
            env,
            file: EnvFile::default(),
            file_name: String::new(),
        };
        // An empty path means that there is no file to read.
        let path = sources.get("config_path")?;
        if let Some(path) = path.filter(|path| !path.text.is_empty()) {
            let named = sources.is_flag("config_path") || path.place.is_some();
            if !named && !of_server {
                return Ok(sources);
            }
            sources.file = dotenv::read(Path::new(&path.text), named)?;
            sources.file_name = path.text;
        }
        Ok(sources)
    }

    pub(super) fn get(&self, id: &str) -> Result<Option<Given>, Refusal> {
        let flag = self.flags.get_one::<String>(id).map(|text| Given {
            text: text.clone(),
            name: self.flag_name(id),
            place: None,
        });
        if self.is_flag(id) {
            return Ok(flag);
        }
        if let Some(name) = env_name(id)
            && let Some(given) = self.variable(&name)?
        {
            return Ok(Some(given));
        }
        Ok(flag)
    }

    /// A name that only the environment and the file may have.
    pub(super) fn variable(&self, name: &str) -> Result<Option<Given>, Refusal> {
        let given = |text: String, place: String| Given {
            // A secret from a file often ends with the file's newline.
            text: text.trim().to_owned(),
            name: name.into(),
            place: Some(place),
        };
        if let Some(value) = self.env.get(name).filter(|value| !value.is_empty()) {
            let text = value.to_str().map(str::to_owned);
            let text = text.ok_or_else(|| {
                given(String::new(), "the environment".into()).refuse("is not valid UTF-8")
            })?;
            return Ok(Some(given(text, "the environment".into())));
        }
        let value = self.file.get(name).filter(|value| !value.is_empty());
        Ok(value.map(|text| given(text.clone(), self.file_name.clone())))
    }

    /// What the environment or the file that a value is from says under another
    /// name.
    pub(super) fn beside(&self, given: &Given, name: &str) -> Option<String> {
        given.place.as_ref()?;
        let said = |value: &str| Some(value.trim().to_owned()).filter(|text| !text.is_empty());
        match self.env.get(&given.name).is_some_and(|own| !own.is_empty()) {
            true => said(self.env.get(name)?.to_str()?),
            false => said(self.file.get(name)?),
        }
    }

    /// Whether a value is from a file.
    pub(super) fn is_of_file(&self, given: &Given) -> bool {
        given.place.as_ref() == Some(&self.file_name)
    }

    /// Like [`Self::get`], for an option that always has a value.
    pub(super) fn need(&self, id: &str) -> Result<Given, Refusal> {
        self.get(id)?
            .ok_or_else(|| Refusal::new(format!("{}: a value is needed", self.flag_name(id))))
    }

    /// A text, if there is one.
    pub(super) fn text(&self, id: &str) -> Result<Option<String>, Refusal> {
        Ok(self.get(id)?.map(|given| given.text))
    }

    /// The path of a file, which nobody has looked for yet.
    pub(super) fn path(&self, id: &str) -> Result<Option<PathBuf>, Refusal> {
        let Some(given) = self.get(id)? else {
            return Ok(None);
        };
        if given.text.is_empty() {
            return Err(given.refuse("a path must not be empty"));
        }
        Ok(Some(PathBuf::from(given.text)))
    }

    /// A flag without a value.
    pub(super) fn switch(&self, id: &str) -> bool {
        self.flags.get_flag(id)
    }

    /// A number within the option's bounds: a count, or a size in bytes.
    pub(super) fn number<T: TryFrom<u64>>(&self, id: &str) -> Result<Option<T>, Refusal> {
        let Some(given) = self.get(id)? else {
            return Ok(None);
        };
        let bounds = bounds(id).unwrap_or(Bounds::Count(0, u64::MAX));
        let value = bounds.read(&given.text).map_err(|why| given.refuse(why))?;
        let value =
            T::try_from(value).map_err(|_| given.refuse("is too large for this machine"))?;
        Ok(Some(value))
    }

    pub(super) fn number_or<T: TryFrom<u64>>(&self, id: &str, default: T) -> Result<T, Refusal> {
        Ok(self.number(id)?.unwrap_or(default))
    }

    /// The number of an option that clap gives a default.
    pub(super) fn need_number<T: TryFrom<u64>>(&self, id: &str) -> Result<T, Refusal> {
        self.number(id)?
            .ok_or_else(|| Refusal::new(format!("{}: a value is needed", self.flag_name(id))))
    }

    pub(super) fn need_time(&self, id: &str) -> Result<Duration, Refusal> {
        self.need_number(id).map(Duration::from_millis)
    }

    /// What is odd and yet no reason not to start.
    pub(super) fn warnings(&self) -> Vec<String> {
        let unknown = self.file.unknown(&env_names());
        if unknown.is_empty() {
            return Vec::new();
        }
        let (file, names) = (&self.file_name, unknown.join(", "));
        vec![format!("{file} has names that are not options: {names}")]
    }

    fn is_flag(&self, id: &str) -> bool {
        self.flags.value_source(id) == Some(ValueSource::CommandLine)
    }

    fn flag_name(&self, id: &str) -> String {
        match id {
            "as_user" => "--as".into(),
            "chat" | "text" | "name" => id.to_ascii_uppercase(),
            _ => format!("--{}", id.replace('_', "-")),
        }
    }
}
