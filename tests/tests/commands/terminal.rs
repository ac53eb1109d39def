//! `dctl run -it` and `exec -it` on a real terminal.

use std::time::Duration;

use tests::{command::LONG, installation::wait_until, terminal::Terminal};

use crate::shared::{Name, dctl, shared};

fn terminal(arguments: &[&str]) -> Terminal {
    Terminal::start(&mut shared().installation.command(arguments), 24, 80)
}

/// A container of `image` that sleeps.
fn sleeping(image: &str) -> Name {
    let name = Name::new();
    dctl(&["run", "-d", "--name", name.as_str(), image, "sleep", "600"]).success();
    name
}

#[test]
fn bash_in_debian_is_pid_1_on_a_terminal() {
    let name = Name::new();
    let mut terminal = terminal(&[
        "run",
        "-ti",
        "--rm",
        "--name",
        name.as_str(),
        &shared().debian,
        "bash",
    ]);
    terminal.wait_for("# ", LONG);
    // Made at run time, so that the echo of what is typed is not taken for it.
    terminal.type_text("read -r comm < /proc/1/comm; echo \"pid-1-is-$comm\" $$-$((40 + 2))\r");
    terminal.wait_for("pid-1-is-bash 1-42", LONG);
    terminal.type_text("tty; stty size\r");
    terminal.wait_for("/dev/pts/0", LONG);
    terminal.wait_for("24 80", LONG);
    terminal.type_text("exit 13\r");
    assert_eq!(terminal.finish(LONG), 13);
}

#[test]
fn ps_inside_shows_bash_as_pid_1() {
    // Debian's minimal image has no ps: busybox's looks at the same processes.
    let mut terminal = terminal(&["run", "-ti", "--rm", &shared().busybox, "sh"]);
    terminal.wait_for("# ", LONG);
    terminal.type_text("ps -o pid,comm\r");
    terminal.wait_for("    1 sh", LONG);
    terminal.type_text("exit\r");
    assert_eq!(terminal.finish(LONG), 0);
}

#[test]
fn a_resize_reaches_the_command() {
    // The shell runs the trap when the command in the foreground has ended.
    let script = "trap 'stty size; exit 3' WINCH; stty size; while :; do sleep 0.1; done";
    let mut terminal = terminal(&["run", "-it", "--rm", &shared().debian, "sh", "-c", script]);
    terminal.wait_for("24 80", LONG);
    terminal.resize(50, 132);
    terminal.wait_for("50 132", LONG);
    assert_eq!(terminal.finish(LONG), 3);
}

#[test]
fn control_c_interrupts_what_runs_and_not_the_shell() {
    let mut terminal = terminal(&["run", "-it", "--rm", &shared().debian, "bash"]);
    terminal.wait_for("# ", LONG);
    // Interrupted only once it runs: before that the interrupt would be bash's.
    terminal.type_text("sh -c 'echo run-$((1 + 1)); exec sleep 600'\r");
    terminal.wait_for("run-2", LONG);
    terminal.type_text("\x03");
    terminal.wait_for("# ", LONG);
    terminal.type_text("echo code-$?\r");
    terminal.wait_for("code-130", LONG);
    // An end of input is one at the prompt only.
    terminal.wait_for("# ", LONG);
    terminal.type_text("\x04");
    assert_eq!(terminal.finish(LONG), 0);
}

#[test]
fn control_p_control_q_detaches_and_attach_comes_back() {
    let name = Name::new();
    let mut first = terminal(&[
        "run",
        "-it",
        "--name",
        name.as_str(),
        &shared().busybox,
        "sh",
    ]);
    first.wait_for("# ", LONG);
    first.type_text("kept=$((20 + 1))\r");
    first.wait_for("# ", LONG);
    first.type_text("\x10\x11");
    assert_eq!(first.finish(LONG), 0);
    assert_eq!(
        shared()
            .installation
            .inspect(name.as_str(), "{{.State.Running}}"),
        "true"
    );
    let mut second = terminal(&["attach", name.as_str()]);
    second.type_text("echo kept-$kept\r");
    second.wait_for("kept-21", LONG);
    second.type_text("exit 3\r");
    assert_eq!(second.finish(LONG), 3);
}

#[test]
fn exec_has_a_terminal_of_its_own() {
    let name = sleeping(&shared().debian);
    let mut terminal = terminal(&["exec", "-it", name.as_str(), "bash"]);
    terminal.wait_for("# ", LONG);
    terminal.type_text("stty size; exit 8\r");
    terminal.wait_for("24 80", LONG);
    assert_eq!(terminal.finish(LONG), 8);
}

#[test]
fn a_terminal_has_its_size_before_the_command_looks() {
    let name = sleeping(&shared().busybox);
    // The command looks at once: any of these could be too early.
    for _ in 0..30 {
        let mut terminal = terminal(&["exec", "-t", name.as_str(), "stty", "size"]);
        terminal.wait_for("24 80", LONG);
        assert_eq!(terminal.finish(LONG), 0);
    }
    for _ in 0..5 {
        let mut terminal = terminal(&["run", "-t", "--rm", &shared().busybox, "stty", "size"]);
        terminal.wait_for("24 80", LONG);
        assert_eq!(terminal.finish(LONG), 0);
    }
}

#[test]
fn a_terminal_that_is_closed_leaves_the_container_in_order() {
    let name = Name::new();
    let mut terminal = terminal(&[
        "run",
        "-it",
        "--name",
        name.as_str(),
        &shared().busybox,
        "sh",
    ]);
    terminal.wait_for("# ", LONG);
    terminal.close(Duration::from_secs(20));
    // Docker leaves it running; what must not be is a container that nobody can
    // use or remove any more.
    let name = name.as_str();
    wait_until("the container answers", Duration::from_secs(30), || {
        !shared()
            .installation
            .inspect(name, "{{.State.Status}}")
            .is_empty()
    });
    dctl(&["rm", "--force", name]).success();
}

#[test]
fn without_a_terminal_t_is_refused() {
    dctl(&["run", "-it", "--rm", &shared().busybox, "sh"]).fails_with(1, "not a TTY");
}
