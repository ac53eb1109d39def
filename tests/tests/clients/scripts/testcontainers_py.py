"""What test suites do with testcontainers: real servers for the time of a test."""

import os
import pathlib
import tempfile
import unittest

import pg8000.native
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy
from testcontainers.postgres import PostgresContainer
from testcontainers.redis import RedisContainer


class Servers(unittest.TestCase):
    def test_postgresql_answers_queries(self):
        with PostgresContainer(os.environ["POSTGRES"], password="a 'word'") as server:
            connection = pg8000.native.Connection(
                server.username, password=server.password, database=server.dbname,
                host=server.get_container_host_ip(), port=int(server.get_exposed_port(5432)),
                timeout=240)
            connection.run("CREATE TABLE t (n int)")
            connection.run("INSERT INTO t SELECT generate_series(1, 1000)")
            self.assertEqual(connection.run("SELECT sum(n) FROM t"), [[500500]])
            connection.close()

    def test_redis_keeps_values(self):
        with RedisContainer(os.environ["REDIS"], password="secret") as server:
            redis = server.get_client()
            redis.set("key", "value")
            self.assertEqual(redis.get("key"), b"value")
            redis.close()

    def test_containers_meet_in_a_network(self):
        with Network() as network, tempfile.TemporaryDirectory() as directory:
            pathlib.Path(directory, "index.html").write_text("met")
            server = DockerContainer(os.environ["BUSYBOX"]) \
                .with_command("sh -c 'echo listens; exec httpd -f -p 80 -h /www'") \
                .with_volume_mapping(directory, "/www", "ro") \
                .with_network(network).with_network_aliases("server") \
                .waiting_for(LogMessageWaitStrategy("listens"))
            asking = DockerContainer(os.environ["BUSYBOX"]) \
                .with_command("sleep 600").with_network(network)
            with server, asking:
                code, output = asking.exec("wget -qO- http://server/")
                self.assertEqual((code, output), (0, b"met"))


if __name__ == "__main__":
    unittest.main()
