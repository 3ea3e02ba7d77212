#pragma once

namespace runnel::bridge {

// What the kernel knows about the other side of a TCP connection.
enum class Peer {
  kThere,
  // It has sent its last byte (FIN). A client that called shutdown(SHUT_WR) and one that called close() look the same,
  // but only the second resets the connection when it is sent more bytes.
  kHalfClosed,
  kGone,  // it has reset the connection
};

// Does not depend on whether the bytes before the FIN were read.
Peer LookAtPeer(int socket);

}  // namespace runnel::bridge
