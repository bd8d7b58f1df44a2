"""`python -m dicom_node` is the command `dicom-node`."""

from dicom_node.admin.main import main

main()
