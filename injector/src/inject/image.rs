//! A development image in the place of the app's.

use serde_json::json;

use super::pod::Pod;
use crate::original::set;

impl Pod<'_> {
    pub(super) fn set_image(&mut self) {
        let Some(image) = self.asked.dev_image.clone() else { return };
        for index in self.apps.clone() {
            if self.container(index)["image"] == image.as_str() {
                continue;
            }
            self.change(index, |fields, container| set(fields, container, "image", json!(image)));
            let did = format!("container {} runs {image}", self.container_name(index));
            self.did.push(did);
        }
    }
}
