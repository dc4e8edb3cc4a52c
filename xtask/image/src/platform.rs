//! The platforms that images are built for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Operating system and CPU as OCI names them (image-spec, image-index.md, `platform`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Platform {
    /// 64-bit x86.
    #[serde(rename = "linux/amd64")]
    LinuxAmd64,
    /// 64-bit ARM.
    #[serde(rename = "linux/arm64")]
    LinuxArm64,
}

impl Platform {
    /// All platforms, in the order of an image index.
    pub const ALL: [Self; 2] = [Self::LinuxAmd64, Self::LinuxArm64];

    /// The platform whose programs this machine's CPU runs; also on macOS, where a Linux virtual
    /// machine of the same CPU runs them.
    pub const fn host() -> Self {
        if cfg!(target_arch = "aarch64") { Self::LinuxArm64 } else { Self::LinuxAmd64 }
    }

    /// OCI's name of the CPU, also Debian's.
    pub const fn architecture(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "amd64",
            Self::LinuxArm64 => "arm64",
        }
    }

    /// The GNU triplet below `/usr/lib` (Debian multiarch).
    pub const fn multiarch(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "x86_64-linux-gnu",
            Self::LinuxArm64 => "aarch64-linux-gnu",
        }
    }

    /// The CPU in wheel platform tags (PEP 600).
    pub const fn wheel_cpu(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "x86_64",
            Self::LinuxArm64 => "aarch64",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "linux/{}", self.architecture())
    }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|platform| platform.to_string() == text)
            .ok_or_else(|| Error::refused(format_args!("platform {text:?}"), "not one of linux/amd64, linux/arm64"))
    }
}
