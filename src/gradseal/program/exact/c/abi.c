/* The number of this interface: the loader refuses a library of another. */

#include <stdint.h>

__attribute__((visibility("default"))) int32_t gradseal_abi(void) { return 2; }
