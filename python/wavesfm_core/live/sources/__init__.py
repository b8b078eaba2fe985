# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources of samples: recordings, standard input, ZMQ, RTL-SDR, SoapySDR, UHD and a simulated radio."""
