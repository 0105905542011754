"""Processes of tests get ports that no other test process gets."""

import socket

from tests.ports import FIRST, N_EACH, N_PROCESSES, free_ports, range_of

EPHEMERAL = 32_768


def test_each_process_of_tests_has_a_range_of_its_own_below_the_kernels() -> None:
    ranges = [range_of(f"gw{number}") for number in range(N_PROCESSES)]
    assert len(set().union(*ranges)) == N_PROCESSES * N_EACH
    assert min(map(min, ranges)) == FIRST
    assert max(map(max, ranges)) < EPHEMERAL
    assert range_of("") == ranges[0]


def test_no_port_is_given_twice_in_a_row_nor_one_that_is_taken() -> None:
    first = free_ports(3)
    with socket.create_server(("127.0.0.1", first[-1] + 1)):
        second = free_ports(3)
    assert len({*first, first[-1] + 1, *second}) == 7
