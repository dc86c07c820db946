//! A small disk that can be made to stall: a loop-mounted ext4 image that `fsfreeze` stops. A
//! write to it then hangs in the kernel until it is thawed, as with a broken array or a full SAN.

use std::path::PathBuf;
use std::process::Command;

use crate::janitor::{Duty, quoted};
use crate::process::{Folder, run};
use crate::{available, is_root};

/// A mounted disk.
#[derive(Debug)]
pub struct StallableDisk {
    mount: PathBuf,
    duty: Duty,
    _folder: Folder,
}

impl StallableDisk {
    /// Makes and mounts one. `None`: this machine can't (root and a loop device are needed).
    pub fn new(megabytes: u64) -> Option<Self> {
        let what = "a disk that can stall (root, loop devices, mkfs.ext4)";
        if !available(is_root(), what) {
            return None;
        }
        let folder = Folder::new("disk");
        let image = folder.path().join("image");
        let mount = folder.path().join("mount");
        std::fs::create_dir(&mount).expect("our own folder");
        std::fs::File::create(&image)
            .and_then(|file| file.set_len(megabytes << 20))
            .expect("our own folder");
        run(Command::new("/usr/sbin/mkfs.ext4").args(["-q", "-F"]).arg(&image));
        let mounted = Command::new("mount")
            .args(["-o", "loop"])
            .args([&image, &mount])
            .status()
            .is_ok_and(|status| status.success());
        if !available(mounted, what) {
            return None;
        }
        let path = quoted(&mount);
        let duty = Duty::new(&format!("fsfreeze -u {path}; umount -l {path}"));
        Some(Self { mount, duty, _folder: folder })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &std::path::Path {
        &self.mount
    }

    /// From now on whoever writes to it hangs.
    pub fn stall(&self) {
        run(Command::new("/usr/sbin/fsfreeze").arg("-f").arg(&self.mount));
    }

    /// It works again.
    pub fn recover(&self) {
        run(Command::new("/usr/sbin/fsfreeze").arg("-u").arg(&self.mount));
    }
}

impl Drop for StallableDisk {
    fn drop(&mut self) {
        // It may not be frozen: then this says so, and that is well.
        let _thawed = Command::new("/usr/sbin/fsfreeze").arg("-u").arg(&self.mount).output();
        let unmounted = Command::new("umount").arg("-l").arg(&self.mount).status();
        if unmounted.is_ok_and(|status| status.success()) {
            self.duty.done();
        }
    }
}
