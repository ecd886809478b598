"""How we speak to Redis and Valkey: one multiplexed connection for each direction, ours from the socket up, on anyio.

    address       what REDIS_URL says                       replies   what the server answers, its refusals as the house's errors
    line          requests and their answers, in order      pulse     is the other side alive (both pure)
    connection    one connection, until it is lost          link      one connection after the other; scripts
    client        the choke point: a link inside its stack  bus       the hub's bus, over pub/sub

Why our own: a caller that leaves (a deadline, a client that hung up) must be free at once, must not shift anybody's answer, and
must not cost a connection; of the clients tried none did all three on Trio, and this costs a fraction of their CPU
(libraries.md §1). One server, or a primary behind a name: clusters and Sentinel are not spoken to.
"""
