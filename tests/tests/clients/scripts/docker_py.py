"""What programs do with docker-py. The images' names are in the environment."""

import contextlib
import io
import os
import socket
import tarfile
import threading
import time
import unittest
import urllib.request

import docker
from docker.errors import APIError, ContainerError, ImageNotFound, NotFound
from docker.types import Healthcheck, IPAMConfig, IPAMPool, LogConfig, Mount, Ulimit

BUSYBOX = os.environ["BUSYBOX"]
REDIS = os.environ["REDIS"]
REGISTRY = os.environ["REGISTRY"]
client = docker.from_env(timeout=240)
serial = iter(range(1000))


def unused(kind):
    """A name that no other test has."""
    return f"docker-py-{os.getpid()}-{kind}-{next(serial)}"


class Case(unittest.TestCase):
    def run_detached(self, *command, image=BUSYBOX, **options):
        container = client.containers.run(image, list(command), detach=True, **options)
        self.addCleanup(self.remove, container)
        return container

    def create(self, *command, **options):
        container = client.containers.create(BUSYBOX, list(command), **options)
        self.addCleanup(self.remove, container)
        return container

    def remove(self, container):
        with contextlib.suppress(NotFound):
            container.remove(force=True, v=True)

    def assert_status(self, status, function, *arguments, says="", **options):
        with self.assertRaises(APIError) as caught:
            function(*arguments, **options)
        self.assertEqual(caught.exception.status_code, status, caught.exception)
        self.assertIn(says, caught.exception.explanation)


class Runs(Case):
    def test_output_comes_back(self):
        self.assertEqual(client.containers.run(BUSYBOX, "echo out", remove=True), b"out\n")
        both = client.containers.run(
            BUSYBOX, ["sh", "-c", "echo out; echo err >&2"], stderr=True, remove=True
        )
        self.assertEqual(sorted(both.splitlines()), [b"err", b"out"])

    def test_a_failure_says_code_and_standard_error(self):
        with self.assertRaises(ContainerError) as caught:
            client.containers.run(BUSYBOX, ["sh", "-c", "echo why >&2; exit 3"], remove=True)
        self.assertEqual(caught.exception.exit_status, 3)
        self.assertEqual(caught.exception.stderr, b"why\n")

    def test_a_program_that_is_not_there(self):
        self.assert_status(400, client.containers.run, BUSYBOX, "no-such-program",
                           remove=True, says="no-such-program")

    def test_output_streams(self):
        script = "for i in 1 2 3; do echo line $i; sleep 0.1; done"
        lines = client.containers.run(BUSYBOX, ["sh", "-c", script], stream=True, remove=True)
        self.assertEqual(b"".join(lines), b"line 1\nline 2\nline 3\n")

    def test_options_take_effect(self):
        script = "id -u; hostname; pwd; echo $KEY; cat /sys/fs/cgroup/memory.max; ulimit -n; " \
            "df /tmp | tail -n 1 | cut -d ' ' -f 1; cat /proc/sys/net/ipv4/ip_default_ttl; " \
            "grep extra /etc/hosts; touch /x 2>&1"
        container = self.run_detached(
            "sh", "-c", script, user="1000", hostname="named", working_dir="/home",
            environment={"KEY": "value"}, mem_limit="64m", read_only=True,
            ulimits=[Ulimit(name="nofile", soft=100, hard=100)], tmpfs={"/tmp": "size=1m"},
            sysctls={"net.ipv4.ip_default_ttl": "99"}, extra_hosts={"extra": "10.1.2.3"},
            cap_drop=["ALL"], init=True, labels={"a": "b"}, shm_size="1m",
            log_config=LogConfig(type="json-file", config={"max-size": "1m"}))
        self.assertEqual(container.wait()["StatusCode"], 1)
        self.assertEqual(container.logs().decode().splitlines(), [
            "1000", "named", "/home", "value", str(64 << 20), "100", "tmpfs", "99",
            "10.1.2.3\textra", "touch: /x: Read-only file system"])
        container.reload()
        self.assertEqual(container.labels, {"origin": "test", "a": "b"})
        self.assertEqual(container.attrs["HostConfig"]["Init"], True)


class Lives(Case):
    def test_states_in_turn(self):
        container = self.create("sleep", "600", name=unused("life"))

        def status():
            container.reload()
            return container.status

        self.assertEqual(status(), "created")
        container.start()
        self.assertEqual(status(), "running")
        container.start()
        container.pause()
        self.assertEqual(status(), "paused")
        container.unpause()
        container.rename(container.name + "-renamed")
        self.assertEqual(status(), "running")
        container.restart(timeout=0)
        self.assertEqual(status(), "running")
        container.kill(signal="KILL")
        self.assertEqual(container.wait(timeout=240), {"StatusCode": 137})
        self.assertEqual(status(), "exited")
        container.stop()
        self.assert_status(409, container.kill, says="is not running")
        container.remove()
        self.assertRaises(NotFound, container.reload)
        self.assert_status(404, container.start, says="No such container")

    def test_waits_for_the_next_exit_and_for_the_removal(self):
        for condition, options in [("next-exit", {}), ("removed", {"auto_remove": True})]:
            container = self.create("sh", "-c", "exit 4", **options)
            result = []
            waiting = threading.Thread(
                target=lambda: result.append(container.wait(condition=condition)))
            waiting.start()
            time.sleep(0.2)
            container.start()
            waiting.join(240)
            self.assertEqual(result, [{"StatusCode": 4}], condition)

    def test_names_are_taken_once(self):
        container = self.create(name=unused("taken"))
        self.assert_status(409, self.create, name=container.name, says="is already in use")
        self.assert_status(400, self.create, name="bad/name", says="Invalid container name")

    def test_what_runs_is_removed_only_by_force(self):
        container = self.run_detached("sleep", "600")
        self.assert_status(409, container.remove, says="cannot remove container")
        container.remove(force=True)

    def test_lists_are_filtered(self):
        label = unused("label")
        running = self.run_detached("sleep", "600", labels=[label])
        ended = self.run_detached("true", labels={label: "x"})
        ended.wait()
        found = lambda **options: {c.id for c in client.containers.list(**options)}
        self.assertEqual(found(filters={"label": label}), {running.id})
        self.assertEqual(found(all=True, filters={"label": label}), {running.id, ended.id})
        self.assertEqual(found(filters={"label": f"{label}=x", "status": "exited"}), {ended.id})
        self.assertEqual(found(all=True, filters={"name": ended.name, "exited": 0}), {ended.id})
        self.assertIn(running.id, found(filters={"ancestor": BUSYBOX, "since": ended.name})
                      | found(filters={"before": ended.name}))
        removed = client.containers.prune(filters={"label": label})
        self.assertEqual(removed["ContainersDeleted"], [ended.id])

    def test_health_becomes_known(self):
        container = self.run_detached(
            "sleep", "600",
            healthcheck=Healthcheck(test=["CMD", "true"], interval=500_000_000, retries=2))
        deadline = time.monotonic() + 120
        while container.health != "healthy":
            self.assertLess(time.monotonic(), deadline, container.health)
            time.sleep(0.2)
            container.reload()

    def test_limits_change(self):
        container = self.run_detached("sleep", "600")
        container.update(mem_limit="96m", memswap_limit="96m", cpu_shares=256)
        limit = container.exec_run("cat /sys/fs/cgroup/memory.max")
        self.assertEqual(limit.output.strip(), str(96 << 20).encode())

    def test_processes_changes_and_statistics(self):
        container = self.run_detached("sleep", "600")
        self.assertEqual(container.exec_run("touch /root/new").exit_code, 0)
        top = container.top(ps_args="-o pid,comm")
        self.assertEqual(top["Titles"], ["PID", "COMMAND"])
        self.assertIn("sleep", [process[1] for process in top["Processes"]])
        self.assertIn({"Path": "/root/new", "Kind": 1}, container.diff())
        once = container.stats(stream=False)
        self.assertGreater(once["memory_stats"]["usage"], 0)
        self.assertGreater(once["cpu_stats"]["cpu_usage"]["total_usage"], 0)
        self.assertIn("eth0", once["networks"])
        stream = container.stats(decode=True)
        self.assertEqual([next(stream)["id"] for _ in range(2)], [container.id] * 2)
        stream.close()


class Streams(Case):
    def test_logs_in_parts(self):
        container = self.run_detached("sh", "-c", "echo 1; sleep 0.5; echo 2 >&2; sleep 0.5; echo 3")
        container.wait()
        self.assertEqual(container.logs(stderr=False), b"1\n3\n")
        self.assertEqual(container.logs(stdout=False), b"2\n")
        self.assertEqual(container.logs(tail=1), b"3\n")
        stamped = container.logs(timestamps=True).splitlines()
        self.assertRegex(stamped[0].decode(), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z 1$")
        self.assertEqual(container.logs(since=int(time.time()) + 1000), b"")

    def test_logs_are_followed(self):
        container = self.run_detached("sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done")
        self.assertEqual(list(container.logs(stream=True, follow=True)), [b"1\n", b"2\n", b"3\n"])

    def test_input_goes_in_and_its_end_too(self):
        container = self.create("sh", "-c", "cat; echo ended", stdin_open=True)
        attached = container.attach_socket(
            params={"stdin": 1, "stdout": 1, "stream": 1})
        container.start()
        attached._sock.sendall(b"typed\n")
        attached._sock.shutdown(socket.SHUT_WR)
        self.assertEqual(container.wait(timeout=240)["StatusCode"], 0)
        self.assertEqual(container.logs(), b"typed\nended\n")
        frames = list(docker.utils.socket.frames_iter(attached, tty=False))
        self.assertEqual({stream for stream, _ in frames}, {docker.utils.socket.STDOUT})
        self.assertEqual(b"".join(data for _, data in frames), b"typed\nended\n")
        attached.close()

    def test_a_terminal_is_one_stream(self):
        container = self.create("sh", "-c", "echo out; echo err >&2; tty", tty=True)
        attached = container.attach(stream=True, logs=True)
        container.start()
        self.assertEqual(b"".join(attached), b"out\r\nerr\r\n/dev/pts/0\r\n")

    def test_commands_are_executed(self):
        container = self.run_detached("sleep", "600", environment={"A": "1"})
        code, output = container.exec_run(
            ["sh", "-c", "echo $A $B; pwd; id -u; exit 6"], environment={"B": "2"},
            workdir="/tmp", user="1000")
        self.assertEqual((code, output), (6, b"1 2\n/tmp\n1000\n"))
        _, (out, err) = container.exec_run(["sh", "-c", "echo o; echo e >&2"], demux=True)
        self.assertEqual((out, err), (b"o\n", b"e\n"))
        _, stream = container.exec_run(["sh", "-c", "echo 1; sleep 0.2; echo 2"], stream=True)
        self.assertEqual(list(stream), [b"1\n", b"2\n"])
        self.assertEqual(container.exec_run("tty", tty=True).output, b"/dev/pts/0\r\n")
        self.assertEqual(container.exec_run("no-such-program").exit_code, 127)

    def test_an_exec_has_input_and_a_record(self):
        container = self.run_detached("sleep", "600")
        made = client.api.exec_create(container.id, "sh -c 'read line; echo got $line; exit 2'",
                                      stdin=True)
        stream = client.api.exec_start(made["Id"], socket=True)
        stream._sock.sendall(b"this\n")
        self.assertEqual(stream.read(1024), b"\1\0\0\0\0\0\0\x09got this\n")
        self.assertEqual(stream.read(1024), b"")
        record = client.api.exec_inspect(made["Id"])
        self.assertEqual((record["ExitCode"], record["Running"]), (2, False))
        self.assertEqual(record["ProcessConfig"]["entrypoint"], "sh")
        stream.close()

    def test_execs_in_the_background(self):
        container = self.run_detached("sleep", "600")
        container.exec_run(["sh", "-c", "echo done > /tmp/mark"], detach=True)
        deadline = time.monotonic() + 60
        while container.exec_run("cat /tmp/mark").output != b"done\n":
            self.assertLess(time.monotonic(), deadline)

    def test_events_tell_a_life(self):
        label = unused("events")
        events = client.events(decode=True, filters={"label": label, "type": "container"})
        self.addCleanup(events.close)
        container = self.run_detached("true", labels=[label])
        container.wait()
        container.remove()
        seen = []
        for event in events:
            seen.append(event["Action"])
            self.assertEqual(event["Actor"]["ID"], container.id)
            self.assertEqual(event["Actor"]["Attributes"]["name"], container.name)
            if event["Action"] == "destroy":
                break
        self.assertEqual(seen, ["create", "start", "die", "destroy"])
        past = client.events(decode=True, since=int(time.time()) - 3600, until=int(time.time()) + 1,
                             filters={"container": container.id, "event": "die"})
        self.assertEqual([event["status"] for event in past], ["die"])


class Files(Case):
    def test_archives_go_in_and_out(self):
        container = self.create("cat", "/tmp/in/file")
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            entry = tarfile.TarInfo("in/file")
            entry.size, entry.mode, entry.uid = 5, 0o640, 1000
            tar.addfile(entry, io.BytesIO(b"there"))
        self.assertTrue(container.put_archive("/tmp", archive.getvalue()))
        container.start()
        container.wait()
        self.assertEqual(container.logs(), b"there")
        stream, stat = container.get_archive("/tmp/in")
        self.assertEqual(stat["name"], "in")
        with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as tar:
            entry = tar.getmember("in/file")
            self.assertEqual((entry.mode, entry.uid, entry.size), (0o640, 1000, 5))
        self.assert_status(404, container.get_archive, "/no-such-path",
                           says="Could not find the file")
        exported = io.BytesIO(b"".join(container.export()))
        with tarfile.open(fileobj=exported) as tar:
            self.assertEqual(tar.extractfile("tmp/in/file").read(), b"there")

    def test_volumes_keep_files(self):
        volume = client.volumes.create(unused("volume"), labels={"of": "docker-py"})
        self.addCleanup(volume.remove, force=True)
        mounted = {volume.name: {"bind": "/v", "mode": "rw"}}
        client.containers.run(BUSYBOX, ["sh", "-c", "echo kept > /v/f"], volumes=mounted, remove=True)
        read = client.containers.run(
            BUSYBOX, "cat /v/f", remove=True,
            mounts=[Mount("/v", volume.name, type="volume", read_only=True)])
        self.assertEqual(read, b"kept\n")
        holder = self.create(volumes=mounted)
        self.assert_status(409, volume.remove, says="volume is in use")
        holder.remove()
        found = client.volumes.list(filters={"label": "of=docker-py", "name": volume.name})
        self.assertEqual([v.id for v in found], [volume.id])
        self.assertRaises(NotFound, client.volumes.get, "no-such-volume")

    def test_files_of_the_host_are_mounted(self):
        with contextlib.ExitStack() as stack:
            import tempfile
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            with open(os.path.join(directory, "f"), "w") as file:
                file.write("of the host")
            read = client.containers.run(
                BUSYBOX, ["sh", "-c", "cat /h/f; echo back > /h/g"], remove=True,
                volumes=[f"{directory}:/h:rw"])
            self.assertEqual(read, b"of the host")
            with open(os.path.join(directory, "g")) as file:
                self.assertEqual(file.read(), "back\n")


class Networks(Case):
    def test_names_hold_in_a_network(self):
        pool = IPAMConfig(pool_configs=[IPAMPool(subnet="10.77.0.0/24", gateway="10.77.0.1")])
        network = client.networks.create(unused("network"), driver="bridge", ipam=pool,
                                         labels={"a": "b"})
        self.addCleanup(network.remove)
        server = self.run_detached("httpd", "-f", "-p", "80", "-h", "/etc", network=network.name,
                                   name=unused("s"))
        asking = self.run_detached("sleep", "600")
        network.connect(asking, aliases=["asks"], ipv4_address="10.77.0.99")
        code, output = asking.exec_run(f"wget -qO- http://{server.name}/group")
        self.assertEqual(code, 0, output)
        self.assertIn(b"root:", output)
        network.reload()
        self.assertEqual({c.id for c in network.containers}, {server.id, asking.id})
        asking.reload()
        endpoint = asking.attrs["NetworkSettings"]["Networks"][network.name]
        self.assertEqual(endpoint["IPAddress"], "10.77.0.99")
        self.assertIn("asks", endpoint["Aliases"])
        self.assert_status(403, network.remove, says="has active endpoints")
        network.disconnect(asking)
        server.remove(force=True)
        self.assertEqual([n.id for n in client.networks.list(names=[network.name])], [network.id])
        self.assertRaises(NotFound, client.networks.get, "no-such-network")

    def test_ports_are_published(self):
        server = self.run_detached("httpd", "-f", "-p", "80", "-h", "/etc",
                                   ports={"80/tcp": ("127.0.0.1", None), "81": None})
        server.reload()
        binding, = server.ports["80/tcp"]
        self.assertEqual(binding["HostIp"], "127.0.0.1")
        with urllib.request.urlopen(f"http://127.0.0.1:{binding['HostPort']}/passwd") as page:
            self.assertIn(b"root:", page.read())
        other = self.create(ports={"80/tcp": int(binding["HostPort"])})
        self.assert_status(500, other.start, says="port is already allocated")
        self.assertEqual(client.api.port(server.id, 80), [binding])


class Images(Case):
    def test_images_are_pulled_tagged_and_pushed(self):
        name = f"{REGISTRY}library/{unused('image')}"
        image = client.images.get(BUSYBOX)
        self.assertTrue(image.tag(name, tag="one"))
        self.assertIn(f"{name}:one", client.images.get(image.id).tags)
        pushed = list(client.images.push(name, tag="one", stream=True, decode=True))
        self.assertRegex(pushed[-2].get("status", ""), "^one: digest: sha256:")
        self.assertEqual(pushed[-1]["aux"]["Tag"], "one")
        client.images.remove(f"{name}:one")
        self.assertRaises(ImageNotFound, client.images.get, f"{name}:one")
        self.assertEqual(client.images.pull(name, tag="one").id, image.id)
        self.assertEqual(client.images.get_registry_data(f"{name}:one").id,
                         pushed[-1]["aux"]["Digest"])
        client.images.remove(f"{name}:one")
        self.assertRaises(NotFound, client.images.pull, name, tag="two")
        failed = list(client.api.push(name, tag="one", stream=True, decode=True)) \
            if client.images.list(name) else []
        self.assertEqual(failed, [])

    def test_images_are_described(self):
        image = client.images.get(REDIS)
        self.assertEqual(image.attrs["Config"]["WorkingDir"], "/data")
        self.assertEqual(image.attrs["Os"], "linux")
        self.assertEqual(len(image.attrs["RootFS"]["Layers"]), 2)
        self.assertEqual(len(image.history()), 2)
        self.assertIn(image.id, [i.id for i in client.images.list(name=REDIS)])
        self.assertRaises(ImageNotFound, client.images.get, "no-such-image")
        self.assert_status(409, client.images.remove, self.holder().image.id, says="conflict")

    def holder(self):
        return self.run_detached("sleep", "600")

    def test_images_are_saved_and_loaded(self):
        image = client.images.get(BUSYBOX)
        saved = b"".join(image.save(named=True))
        loaded = client.images.load(saved)
        self.assertEqual([i.id for i in loaded], [image.id])

    def test_images_are_made_of_containers_and_archives(self):
        container = self.run_detached("sh", "-c", "echo new > /made")
        container.wait()
        name = unused("committed")
        made = container.commit(name, tag="t", changes='CMD ["cat", "/made"]', message="why")
        self.addCleanup(client.images.remove, made.id, force=True)
        self.assertEqual(client.containers.run(f"{name}:t", remove=True), b"new\n")
        files = b"".join(container.export())
        imported = client.api.import_image_from_data(files, repository=name, tag="flat",
                                                     changes=['CMD ["cat", "/made"]'])
        self.assertIn("sha256:", imported)
        self.addCleanup(client.images.remove, f"{name}:flat")
        self.assertEqual(client.containers.run(f"{name}:flat", remove=True), b"new\n")


class Reaper(Case):
    """The calls of Ryuk, with which testcontainers removes what a session left behind."""

    def setUp(self):
        self.session = unused("session")
        self.labels = {"org.testcontainers": "true", "org.testcontainers.session-id": self.session}
        self.wanted = {"label": [f"{key}={value}" for key, value in self.labels.items()]}

    def leave_behind(self):
        """A network, a volume, two containers and an image; gives the containers' ids."""
        client.networks.create(self.session, labels=self.labels)
        client.volumes.create(self.session, labels=self.labels)
        running = self.run_detached(
            "sleep", "600", labels=self.labels, network=self.session,
            volumes=[f"{self.session}:/store", "/anonymous"])
        ended = self.run_detached("true", labels=self.labels)
        ended.wait()
        ended.commit(repository=self.session, conf={"Labels": self.labels})
        return {running.id, ended.id}

    def volumes(self):
        return client.api.volumes(filters=self.wanted)["Volumes"] or []

    def images(self):
        return client.api.images(filters={**self.wanted, "dangling": ["false"]})

    def assert_nothing_left(self):
        self.assertEqual(client.api.containers(all=True, filters=self.wanted), [])
        self.assertEqual(client.api.networks(filters=self.wanted), [])
        self.assertEqual(self.volumes(), [])
        self.assertEqual(self.images(), [])

    def test_all_of_a_session_goes_and_nothing_else(self):
        stranger = self.run_detached("sleep", "600", labels={"org.testcontainers": "true"})
        left = self.leave_behind()
        api = client.api
        containers = api.containers(all=True, filters=self.wanted)
        self.assertEqual({container["Id"] for container in containers}, left)
        for container in containers:
            # It spares what was made after it was called.
            self.assertLessEqual(abs(container["Created"] - time.time()), 600)
            api.remove_container(container["Id"], v=True, force=True)
            with self.assertRaises(NotFound):
                api.remove_container(container["Id"], v=True, force=True)
        for network in api.networks(filters=self.wanted):
            self.assertEqual(network["Name"], self.session)
            api.remove_network(network["Id"])
        self.assertEqual([volume["Name"] for volume in self.volumes()], [self.session])
        api.remove_volume(self.session, force=True)
        for image in self.images():
            self.assertEqual(image["RepoTags"], [f"{self.session}:latest"])
            api.remove_image(image["Id"], force=True)
        self.assert_nothing_left()
        stranger.reload()
        self.assertEqual(stranger.status, "running")

    def test_older_ones_prune(self):
        left = self.leave_behind()
        api = client.api
        for container in left:
            api.remove_container(container, v=True, force=True)
        self.assertEqual(
            api.prune_networks(filters=self.wanted)["NetworksDeleted"], [self.session])
        pruned = api.prune_volumes(filters={**self.wanted, "all": ["true"]})
        self.assertEqual(pruned["VolumesDeleted"], [self.session])
        pruned = api.prune_images(filters={**self.wanted, "dangling": ["false"]})
        self.assertIn({"Untagged": f"{self.session}:latest"}, pruned["ImagesDeleted"])
        self.assert_nothing_left()


class Engine(Case):
    def test_the_engine_is_described(self):
        self.assertTrue(client.ping())
        self.assertEqual(client.version()["Os"], "linux")
        self.assertEqual(client.info()["OSType"], "linux")
        self.assertIn("Volumes", client.df())
        self.assertRaises(APIError, client.swarm.init)

    def test_old_and_new_versions_of_the_api(self):
        for version in ["1.24", "1.40", "1.51"]:
            old = docker.DockerClient.from_env(version=version, timeout=240)
            self.assertTrue(old.ping())
            old.containers.list(all=True)
            output = old.containers.run(BUSYBOX, "echo hi", remove=True)
            self.assertEqual(output, b"hi\n", version)
        too_new = docker.DockerClient.from_env(version="1.99")
        self.assert_status(400, too_new.ping, says="client version 1.99 is too new")


if __name__ == "__main__":
    unittest.main()
