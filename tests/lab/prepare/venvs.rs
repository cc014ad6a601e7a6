//! Sites: an app, its venv and the service that runs it. The root's own Python creates the venv once, from the
//! wheelhouse, as the user who owns it; the app and its unit are added when a container is made.

use std::path::PathBuf;

use anyhow::Result;

use super::root::Suite;
use super::{Lab, run_in};

/// The sites, named after the link of their venv to the base interpreter, or after the app they run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Site {
    /// A server that uses only the standard library, and has little of it in memory.
    Bare,
    /// gunicorn in a venv linked to `/usr/bin/python3`.
    Followed,
    /// gunicorn in a venv linked to `/usr/bin/python3.13`.
    Pinned,
    /// gunicorn in a venv with a copied interpreter.
    Copied,
    /// The first article's: Django under gunicorn and under uWSGI, in a virtualenv with a copied interpreter, run by
    /// supervisord.
    Shop,
    /// The second article's: Flask, requests and `APScheduler` under gunicorn with gevent workers.
    News,
    /// gunicorn in a venv created by uv; the cases install uv on the machine, too.
    Quick,
}

/// The tool that creates a site's venv.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tool {
    Venv,
    Virtualenv,
    Uv,
}

impl Site {
    pub(crate) const ALL: [Self; 7] = [
        Self::Bare,
        Self::Followed,
        Self::Pinned,
        Self::Copied,
        Self::Shop,
        Self::News,
        Self::Quick,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Followed => "followed",
            Self::Pinned => "pinned",
            Self::Copied => "copied",
            Self::Shop => "shop",
            Self::News => "news",
            Self::Quick => "quick",
        }
    }

    /// The directory of the site in a container.
    pub(crate) fn dir(self) -> String {
        format!("/srv/{}", self.name())
    }

    pub(crate) fn venv(self) -> String {
        format!("/srv/{}/venv", self.name())
    }

    pub(crate) fn suites(self) -> &'static [Suite] {
        match self {
            Self::Followed => &[Suite::Bullseye, Suite::Bookworm, Suite::Trixie, Suite::Forky],
            Self::Pinned | Self::Copied | Self::News => &[Suite::Bookworm, Suite::Trixie],
            Self::Bare | Self::Shop | Self::Quick => &[Suite::Trixie],
        }
    }

    pub(crate) fn tool(self) -> Tool {
        match self {
            Self::Shop => Tool::Virtualenv,
            Self::Quick => Tool::Uv,
            _ => Tool::Venv,
        }
    }

    pub(crate) fn requirements(self) -> &'static str {
        match self {
            Self::Bare => "",
            Self::Followed | Self::Pinned | Self::Copied | Self::Quick => {
                include_str!("../apps/plain/requirements.txt")
            }
            Self::Shop => include_str!("../apps/shop/requirements.txt"),
            Self::News => include_str!("../apps/news/requirements.txt"),
        }
    }

    /// The commands that create the venv, `$VENV`.
    fn creation(self) -> &'static str {
        match self {
            Self::Bare | Self::Followed | Self::News => "/usr/bin/python3 -m venv $VENV",
            Self::Pinned => "$(readlink -f /usr/bin/python3) -m venv $VENV",
            Self::Copied => "/usr/bin/python3 -m venv --copies $VENV",
            Self::Shop => {
                "/usr/bin/python3 -m venv /tmp/tool
                 /tmp/tool/bin/pip --quiet install virtualenv
                 /tmp/tool/bin/virtualenv --quiet --copies --python /usr/bin/python3 $VENV"
            }
            Self::Quick => {
                "/usr/bin/python3 -m venv /tmp/tool
                 /tmp/tool/bin/pip --quiet install uv
                 /tmp/tool/bin/uv --quiet venv --no-project --python /usr/bin/python3 $VENV"
            }
        }
    }

    /// The command that installs `/tmp/requirements.txt`.
    fn installer(self) -> &'static str {
        match self.tool() {
            Tool::Uv => {
                "/tmp/tool/bin/uv --quiet pip install --no-index --find-links /wheelhouse --python $VENV/bin/python"
            }
            Tool::Venv | Tool::Virtualenv => "$VENV/bin/pip --quiet install",
        }
    }
}

const SCRIPT: &str = r#"
chown app: "$1"
printf '[global]\nno-index = true\nfind-links = /wheelhouse\n' >/etc/pip.conf
su app -c 'exec sh -eu /as-owner'
"#;

const INSTALLATION: &str = r#"
printf '%s' "$REQUIREMENTS" >/tmp/requirements.txt
[ -z "$REQUIREMENTS" ] || $INSTALL --requirement /tmp/requirements.txt
"#;

impl Lab {
    /// The directory of a site with its venv, to be copied to `/srv`.
    pub(crate) fn site(&self, release: Suite, site: Site) -> Result<PathBuf> {
        let root = self.root(release)?;
        let wheelhouse = self.wheelhouse(release)?;
        let script = format!(
            "VENV={}\nINSTALL=\"{}\"\nREQUIREMENTS='{}'\n{}\n{INSTALLATION}",
            site.venv(),
            site.installer(),
            site.requirements(),
            site.creation(),
        );
        let recipe = [SCRIPT, &script, &wheelhouse.to_string_lossy()];
        let name = format!("site-{}-{}", release.name(), site.name());
        self.artefact(&name, &recipe, |directory| {
            let overlay = self.overlay("site", &root)?;
            overlay.write("/as-owner", &script)?;
            run_in(
                &overlay,
                &[(directory, &site.dir()), (&wheelhouse, "/wheelhouse")],
                SCRIPT,
                &[&site.dir()],
            )?;
            Ok(())
        })
    }
}
