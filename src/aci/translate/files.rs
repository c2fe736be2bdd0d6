//! Volumes with content: Secrets, `ConfigMap`s, the downward API, service account tokens, and projections of them.
//!
//! In: a volume. Out: its files, or refusals. ACI has one kind of volume with content, `secret`: base64-encoded
//! files by name, without directories. The files have the content of the time when the group is created; later
//! changes do not reach them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};

use super::downward::{self, DownwardTarget};
use super::pod::TranslationContext;
use super::references;
use super::refusals::Refusals;
use super::resolved_references::ReferenceKind;
use super::secret_string::SecretString;
use super::sub_paths::VolumePart;

/// File contents by name.
#[derive(Default)]
pub(super) struct FileMap {
    /// The part of the volume whose files these are.
    part: VolumePart,
    /// Whether the volume has a file below the part, even if that file is optional and missing.
    has_part: bool,
    /// Whether the files are all keys of an object.
    has_all_keys: bool,
    /// The content of the file that the part is.
    selected: Option<Vec<u8>>,
    contents: BTreeMap<String, Vec<u8>>,
}

impl FileMap {
    /// The files in the format of ACI's API; `None` if there are none.
    pub(super) fn into_body(self) -> Option<BTreeMap<String, SecretString>> {
        let encoded = self.contents.into_iter();
        let encoded =
            encoded.map(|(name, content)| (name, SecretString::new(STANDARD.encode(content))));
        let encoded: BTreeMap<_, _> = encoded.collect();
        (!encoded.is_empty()).then_some(encoded)
    }

    /// The content of the part in base64, if the part is a file of the volume.
    pub(super) fn selected_file(&self) -> Option<SecretString> {
        let content = self.selected.as_ref().filter(|_| !self.has_part)?;
        Some(SecretString::new(STANDARD.encode(content)))
    }

    /// Whether the part would be a key that the objects do not have.
    pub(super) fn is_missing_key(&self) -> bool {
        self.has_all_keys && self.part.is_single() && self.selected.is_none() && !self.has_part
    }

    /// Whether the part is a directory of the volume. The whole volume is one.
    pub(super) fn is_directory(&self) -> bool {
        self.has_part || self.part.is_whole()
    }

    /// The name of the file at `path` of the volume; `None` if the file is not in the part, or its name is refused.
    fn name(&mut self, path: &str, at: &str, refusals: &mut Refusals) -> Option<String> {
        let name = if self.part.is_whole() {
            path.to_owned()
        } else {
            self.part.path_within(path)?
        };
        self.has_part = true;
        check_path(&name, at, refusals).then_some(name)
    }

    fn add(&mut self, path: &str, content: Vec<u8>, at: &str, refusals: &mut Refusals) {
        if self.part.is_path(path) {
            self.selected = Some(content);
        } else if let Some(name) = self.name(path, at, refusals) {
            self.contents.insert(name, content);
        }
    }
}

/// Whether `path` is a valid file name in a volume. If not, it is refused at the field path `at`.
fn check_path(path: &str, at: &str, refusals: &mut Refusals) -> bool {
    if path.contains('/') {
        let why = format!("'{path}' is in a directory, and ACI's volumes with content are flat");
        refusals.refuse(at, why);
        return false;
    }
    let is_valid = !path.is_empty() && path != "." && !path.starts_with("..");
    refusals.require(is_valid, at, format!("'{path}' is not a file name"));
    is_valid
}

/// An object whose keys become files.
struct KeyedObject<'a> {
    kind: ReferenceKind,
    name: &'a str,
    optional: Option<bool>,
    items: Option<&'a [KeyToPath]>,
}

impl<'a> KeyedObject<'a> {
    fn secret(name: &'a str, optional: Option<bool>, items: Option<&'a Vec<KeyToPath>>) -> Self {
        let items = items.map(Vec::as_slice);
        Self {
            kind: ReferenceKind::Secret,
            name,
            optional,
            items,
        }
    }

    fn config_map(
        name: &'a str,
        optional: Option<bool>,
        items: Option<&'a Vec<KeyToPath>>,
    ) -> Self {
        let kind = ReferenceKind::ConfigMap;
        Self {
            kind,
            ..Self::secret(name, optional, items)
        }
    }
}

/// The files in a part of the volume, whose field path is `at`; `None` if the volume has no files of this kind.
pub(super) fn files(
    (volume, part): (&Volume, &VolumePart),
    at: &str,
    context: &TranslationContext<'_>,
    refusals: &mut Refusals,
) -> Option<FileMap> {
    let mut files = FileMap {
        part: part.clone(),
        ..FileMap::default()
    };
    if let Some(secret) = &volume.secret {
        let name = secret.secret_name.as_deref().unwrap_or_default();
        let object = KeyedObject::secret(name, secret.optional, secret.items.as_ref());
        add_object(
            &object,
            &format!("{at}.secret"),
            context,
            &mut files,
            refusals,
        );
    } else if let Some(map) = &volume.config_map {
        let object = KeyedObject::config_map(&map.name, map.optional, map.items.as_ref());
        add_object(
            &object,
            &format!("{at}.configMap"),
            context,
            &mut files,
            refusals,
        );
    } else if let Some(downward) = &volume.downward_api {
        let items = downward.items.as_deref().unwrap_or_default();
        add_downward_files(
            items,
            &format!("{at}.downwardAPI"),
            context,
            &mut files,
            refusals,
        );
    } else if let Some(projected) = &volume.projected {
        for (index, source) in projected.sources.iter().flatten().enumerate() {
            let at = format!("{at}.projected.sources[{index}]");
            add_projection(source, &at, context, &mut files, refusals);
        }
    } else {
        return None;
    }
    Some(files)
}

fn add_projection(
    source: &VolumeProjection,
    at: &str,
    context: &TranslationContext<'_>,
    files: &mut FileMap,
    refusals: &mut Refusals,
) {
    if let Some(secret) = &source.secret {
        let object = KeyedObject::secret(&secret.name, secret.optional, secret.items.as_ref());
        add_object(&object, &format!("{at}.secret"), context, files, refusals);
    }
    if let Some(map) = &source.config_map {
        let object = KeyedObject::config_map(&map.name, map.optional, map.items.as_ref());
        add_object(
            &object,
            &format!("{at}.configMap"),
            context,
            files,
            refusals,
        );
    }
    if let Some(downward) = &source.downward_api {
        let items = downward.items.as_deref().unwrap_or_default();
        add_downward_files(
            items,
            &format!("{at}.downwardAPI"),
            context,
            files,
            refusals,
        );
    }
    if let Some(token) = &source.service_account_token {
        let at = format!("{at}.serviceAccountToken");
        let need = references::token_need(token.audience.as_deref(), token.expiration_seconds);
        match context.values.token(&need) {
            Ok(bytes) => files.add(&token.path, bytes, &format!("{at}.path"), refusals),
            Err(why) => refusals.refuse(at, why),
        }
    }
}

fn add_object(
    object: &KeyedObject<'_>,
    at: &str,
    context: &TranslationContext<'_>,
    files: &mut FileMap,
    refusals: &mut Refusals,
) {
    let KeyedObject {
        kind,
        name,
        optional,
        items,
    } = *object;
    // An empty list means all keys, as for the kubelet.
    let items = items.unwrap_or_default();
    if items.is_empty() {
        files.has_all_keys = true;
        match context.values.object(kind, name, optional) {
            Ok(content) => {
                for (key, value) in content.iter().flat_map(|content| content.files()) {
                    files.add(key, value.to_vec(), at, refusals);
                }
            }
            Err(why) => refusals.refuse(at, why),
        }
    }
    for (index, item) in items.iter().enumerate() {
        let at = format!("{at}.items[{index}]");
        match context.values.file_value(kind, name, &item.key, optional) {
            Ok(Some(bytes)) => files.add(&item.path, bytes, &format!("{at}.path"), refusals),
            // The path is checked even if the optional file is missing, so that the refusal does not depend on it.
            Ok(None) => _ = files.name(&item.path, &format!("{at}.path"), refusals),
            Err(why) => refusals.refuse(at, why),
        }
    }
}

fn add_downward_files(
    items: &[DownwardAPIVolumeFile],
    at: &str,
    context: &TranslationContext<'_>,
    files: &mut FileMap,
    refusals: &mut Refusals,
) {
    for (index, item) in items.iter().enumerate() {
        let at = format!("{at}.items[{index}]");
        let value = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), None) => {
                downward::field_value(&field.field_path, DownwardTarget::File, context)
            }
            (None, Some(selector)) => downward::resource_value(selector, None, context),
            _ => Err("a file has exactly one of fieldRef and resourceFieldRef".to_owned()),
        };
        match value {
            Ok(value) => {
                files.add(
                    &item.path,
                    value.into_bytes(),
                    &format!("{at}.path"),
                    refusals,
                );
            }
            Err(why) => refusals.refuse(at, why),
        }
    }
}
