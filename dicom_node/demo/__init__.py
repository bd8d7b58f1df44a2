"""`dicom-node demo`: a sample study, an archive to send from and return to, and the node between them."""
