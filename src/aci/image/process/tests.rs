use serde_json::{Value, json};

use super::*;

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn container(fields: &Value) -> Container {
    let mut container = json!({"name": "app"});
    for (key, value) in fields.as_object().expect("an object") {
        container[key] = value.clone();
    }
    serde_json::from_value(container).expect("a container")
}

fn image(entrypoint: &[&str], cmd: &[&str]) -> ImageConfig {
    ImageConfig {
        entrypoint: strings(entrypoint),
        cmd: strings(cmd),
        ..ImageConfig::default()
    }
}

#[test]
fn command_and_args_become_the_process_that_a_kubelet_starts() {
    let both = image(&["/entry", "$(X)"], &["serve"]);
    let shell = image(&["/bin/sh", "-c", "exec app"], &[]);
    let (only_cmd, neither) = (image(&[], &["serve"]), image(&[], &[]));
    let none: &[&str] = &[];
    for (command, args, image, expected) in [
        (none, none, &both, none),
        (&["/own"], none, &both, &["/own"]),
        (&["/own"], &["a", "b"], &both, &["/own", "a", "b"]),
        (none, &["a", "b"], &both, &["/entry", "$(X)", "a", "b"]),
        (none, &["a"], &shell, &["/bin/sh", "-c", "exec app", "a"]),
        (none, &["a"], &only_cmd, &["a"]),
        (none, &["a"], &neither, &["a"]),
        (none, &["a"], &image(&[""], &["serve"]), &["a"]),
        (none, &["a"], &image(&["", ""], &[]), &["", "", "a"]),
        (none, none, &only_cmd, none),
        (none, none, &neither, none),
        (none, &[""], &both, &["/entry", "$(X)", ""]),
    ] {
        let line = container_command(&strings(command), &strings(args), image);
        assert_eq!(line, strings(expected), "{command:?} {args:?} {image:?}");
    }
}

#[test]
fn an_image_is_needed_only_for_fields_that_depend_on_it() {
    use RequiredImageField::{Entrypoint, User, WorkingDir};
    let non_root = json!({"runAsNonRoot": true});
    let user = json!({"runAsNonRoot": true, "runAsUser": 5});
    for (fields, pod, expected) in [
        (json!({}), json!({}), vec![]),
        (json!({"command": ["a"], "args": ["b"]}), json!({}), vec![]),
        (json!({"args": []}), json!({}), vec![]),
        (json!({"args": ["b"]}), json!({}), vec![Entrypoint]),
        (
            json!({"command": [], "args": ["b"]}),
            json!({}),
            vec![Entrypoint],
        ),
        (json!({"workingDir": ""}), json!({}), vec![]),
        (json!({"workingDir": "/a"}), json!({}), vec![WorkingDir]),
        (json!({"securityContext": non_root}), json!({}), vec![User]),
        (json!({}), non_root.clone(), vec![User]),
        (
            json!({"securityContext": {"runAsNonRoot": false}}),
            non_root.clone(),
            vec![],
        ),
        (
            json!({"securityContext": {"runAsUser": 0}}),
            non_root.clone(),
            vec![],
        ),
        (
            json!({"securityContext": non_root}),
            json!({"runAsUser": 5}),
            vec![],
        ),
        (
            json!({"args": ["a"], "workingDir": "/"}),
            user,
            vec![Entrypoint, WorkingDir],
        ),
    ] {
        let pod: PodSecurityContext = serde_json::from_value(pod).expect("a security context");
        assert_eq!(
            RequiredImageField::of(&container(&fields), Some(&pod)),
            expected,
            "{fields}"
        );
    }
    assert_eq!(RequiredImageField::of(&container(&json!({})), None), []);
}

#[test]
fn run_as_non_root_is_decided_as_a_kubelet_does() {
    use NonRootRefusal::{ImageIsRoot, ImageUserIsInvalid, ImageUserIsName, RunAsRoot};
    let name = |name: &str| Err(ImageUserIsName(name.to_owned()));
    let runs = |user, group| Ok(Some(ImageUser { user, group }));
    let max = i64::from(i32::MAX);
    let check = |own: &Value, user: &str, expected| {
        let config = ImageConfig {
            user: user.to_owned(),
            ..ImageConfig::default()
        };
        let checked =
            verify_run_as_non_root(&container(&json!({"securityContext": own})), None, &config);
        assert_eq!(checked, expected, "{own} {user}");
    };
    check(&json!({}), "", Ok(None));
    check(&json!({"runAsNonRoot": false}), "0", Ok(None));
    let root = json!({"runAsNonRoot": true, "runAsUser": 0});
    check(&root, "7", Err(RunAsRoot));
    let seven = json!({"runAsNonRoot": true, "runAsUser": 7});
    check(&seven, "root", Ok(None));
    let too_large = "9223372036854775808";
    for (user, expected) in [
        ("", Err(ImageIsRoot)),
        (":5", Err(ImageIsRoot)),
        ("0", Err(ImageIsRoot)),
        ("00:7", Err(ImageIsRoot)),
        ("65532", runs(65532, None)),
        ("+5", runs(5, None)),
        ("101:0", runs(101, Some(0))),
        ("101:web", runs(101, None)),
        ("101:-1", runs(101, None)),
        ("2147483647", runs(i32::MAX, None)),
        ("2147483648", Err(ImageUserIsInvalid(max + 1))),
        ("-1", Err(ImageUserIsInvalid(-1))),
        ("nginx", name("nginx")),
        ("root", name("root")),
        ("nginx:101", name("nginx")),
        ("0x5", name("0x5")),
        (" 5", name("5")),
        (too_large, name(too_large)),
    ] {
        check(&json!({"runAsNonRoot": true}), user, expected);
    }
}

#[test]
fn refusals_have_the_kubelets_words() {
    let message = |refusal: &NonRootRefusal| refusal.message("web_shop(u-1)", "app");
    assert_eq!(
        message(&NonRootRefusal::ImageIsRoot),
        r#"container has runAsNonRoot and image will run as root (pod: "web_shop(u-1)", container: app)"#
    );
    assert_eq!(
        message(&NonRootRefusal::ImageUserIsName("nginx".to_owned())),
        r#"container has runAsNonRoot and image has non-numeric user (nginx), cannot verify user is non-root (pod: "web_shop(u-1)", container: app)"#
    );
    assert_eq!(
        message(&NonRootRefusal::RunAsRoot),
        r#"container's runAsUser breaks non-root policy (pod: "web_shop(u-1)", container: app)"#
    );
    assert_eq!(
        message(&NonRootRefusal::ImageUserIsInvalid(-1)),
        r#"container has runAsNonRoot and image has an invalid user id (-1). (Must be 1-(2147483647)): must be between 0 and 2147483647, inclusive (pod: "web_shop(u-1)", container: app)"#
    );
}

#[test]
fn a_working_directory_that_is_the_images_needs_no_setting() {
    for (own, of_image, same) in [
        ("", "/app", true),
        ("/app", "/app", true),
        ("/app/", "/app", true),
        ("//app/./", "/app", true),
        ("/", "", true),
        ("/", "/", true),
        ("/app", "app", false),
        ("/app", "", false),
        ("/app", "/", false),
        ("/app/../app", "/app", false),
        ("/App", "/app", false),
        ("/", "/app", false),
    ] {
        let config = ImageConfig {
            working_dir: of_image.to_owned(),
            ..ImageConfig::default()
        };
        let found = working_dir_match(&container(&json!({"workingDir": own})), &config);
        let expected = if same {
            WorkingDirMatch::OfImage
        } else {
            WorkingDirMatch::Differs(config.working_dir().to_owned())
        };
        assert_eq!(found, expected, "{own} {of_image}");
    }
}
